# remember_me.c (d): a token is accepted although its generation has ended
s/!series\.live)/false)/
