# remember_me.c (d): the token before the current one is taken for stolen
s/else if (shown == SHOWN_PARENT &&/else if (shown == SHOWN_STRANGER \&\&/
