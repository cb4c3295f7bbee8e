/*
 * options.c
 *	  Read the command line of pg_session_follow.
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "common/logging.h"
#include "common/string.h"
#include "getopt_long.h"

#include "options.h"

const char *progname;
Options		options;

static void
usage(void)
{
	printf("%s follows the invalidations of sessions as a node of session_admin.\n\n", progname);
	printf("Usage:\n  %s [OPTION]... [DBNAME [USERNAME]]\n\n", progname);
	printf("Each invalidation is printed as a JSON object on a line, with the keys id, scope,\n"
		   "application, user, session, keep, reason and at, as far as they apply.  After\n"
		   "{\"scope\":\"all\",\"reason\":\"resync\"} nothing that was cached is right.\n\n");
	printf("Options:\n");
	printf("  -a, --application=NAME   application that the node belongs to\n");
	printf("  -n, --node=NAME          name of the node (default: HOST-PID)\n");
	printf("  -f, --position-file=FILE keep the position in FILE, and continue from there\n");
	printf("  -v, --verbose            write what happens to standard error\n");
	printf("  -x, --exec=COMMAND       run COMMAND with each JSON object on standard input\n"
		   "                           instead of printing it; until it exits with 0 it is\n"
		   "                           run again\n");
	printf("  -V, --version            output version information, then exit\n");
	printf("  -?, --help               show this help, then exit\n");
	printf("\nConnection options:\n");
	printf("  -d, --dbname=DBNAME      database name, connection string or URI\n");
	printf("  -h, --host=HOSTNAME      database server host or socket directory\n");
	printf("  -p, --port=PORT          database server port\n");
	printf("  -U, --username=USERNAME  database user name\n");
	printf("  -w, --no-password        never prompt for password\n");
	printf("  -W, --password           force password prompt\n");
	printf("\nA node that ends by SIGINT or SIGTERM leaves; with --position-file it only stops,\n"
		   "and whoever starts with that file again gets what was committed meanwhile.\n");
}

static char *
default_node(void)
{
	char		host[256];

	if (gethostname(host, sizeof(host)) != 0)
		pg_fatal("could not get host name: %m");
	host[sizeof(host) - 1] = '\0';
	return psprintf("%.200s-%d", host, (int) getpid());
}

/*
 * Read the command line, or end the program.
 *
 * Long: it is a list of the options.
 */
void
parse_options(int argc, char *argv[])
{
	static struct option long_options[] = {
		{"application", required_argument, NULL, 'a'},
		{"dbname", required_argument, NULL, 'd'},
		{"exec", required_argument, NULL, 'x'},
		{"help", no_argument, NULL, '?'},
		{"host", required_argument, NULL, 'h'},
		{"no-password", no_argument, NULL, 'w'},
		{"node", required_argument, NULL, 'n'},
		{"password", no_argument, NULL, 'W'},
		{"port", required_argument, NULL, 'p'},
		{"position-file", required_argument, NULL, 'f'},
		{"username", required_argument, NULL, 'U'},
		{"verbose", no_argument, NULL, 'v'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0}
	};
	int			c;

	progname = get_progname(argv[0]);
	if (argc > 1)
	{
		if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)
		{
			usage();
			exit(0);
		}
		if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		{
			printf("pg_session_follow (session_admin) %s\n", SA_VERSION);
			exit(0);
		}
	}

	while ((c = getopt_long(argc, argv, "a:d:f:h:n:p:U:vwWx:", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'a':
				options.application = optarg;
				break;
			case 'd':
				options.dbname = optarg;
				break;
			case 'f':
				options.position_file = optarg;
				break;
			case 'h':
				options.host = optarg;
				break;
			case 'n':
				options.node = optarg;
				break;
			case 'p':
				options.port = optarg;
				break;
			case 'U':
				options.user = optarg;
				break;
			case 'v':
				options.verbose = true;
				break;
			case 'w':
				options.prompt_password = TRI_NO;
				break;
			case 'W':
				options.prompt_password = TRI_YES;
				break;
			case 'x':
				options.command = optarg;
				break;
			default:
				pg_log_error_hint("Try \"%s --help\" for more information.", progname);
				exit(1);
		}
	}

	if (optind < argc && options.dbname == NULL)
		options.dbname = argv[optind++];
	if (optind < argc && options.user == NULL)
		options.user = argv[optind++];
	if (optind < argc)
	{
		pg_log_error("too many command-line arguments (first is \"%s\")", argv[optind]);
		pg_log_error_hint("Try \"%s --help\" for more information.", progname);
		exit(1);
	}
	if (options.node == NULL)
		options.node = default_node();
}
