# clock.c (g): due times and leases go by the clock that people set
s/clock_gettime(CLOCK_MONOTONIC, /clock_gettime(CLOCK_REALTIME, /
