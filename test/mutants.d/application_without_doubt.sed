# src/policy/policy.c: a changed generation is not in doubt before others are told
s/if (sa_live_applications_in_doubt())/if (false)/
