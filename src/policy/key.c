/*
 * key.c
 *	  The names of applications and users in 64 bits.
 */
#include "policy/policy.h"

/* A name in 64 bits; nobody can choose names that collide. */
uint64
sa_application_key(const char *name)
{
	uint8		hash[SA_HASH_LEN];
	uint64		key;

	sa_sha256(name, strlen(name), hash);
	memcpy(&key, hash, sizeof(key));
	return key;
}

/* The name of a user, likewise; 0 stands for an anonymous one (NULL). */
uint64
sa_user_key(const char *user_name)
{
	return user_name ? Max(sa_application_key(user_name), 1) : 0;
}

/* The name of the application with this key; empty if there is none. */
const char *
sa_application_of_key(uint64 key)
{
	static SaStatement list_applications = {.sql =
		"SELECT name::text FROM session_admin.application"
	};
	static uint64 last_key = 0;
	static char last_name[SA_NAME_MAX + 1] = "";
	uint64		rows;

	if (last_name[0] != '\0' && last_key == key)
		return last_name;

	last_name[0] = '\0';
	rows = sa_run(&list_applications, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *name = sa_result_text(i, 1);

		if (sa_application_key(name) != key)
			continue;
		last_key = key;
		strlcpy(last_name, name, sizeof(last_name));
		break;
	}
	return last_name;
}
