# remember_me.c (d): the token before the current one is rotated again
s/if (shown == SHOWN_CURRENT)$/if (shown == SHOWN_CURRENT || shown == SHOWN_PARENT)/
