# validity.c (a): a session is valid although its generation has ended
s/return generation == application->generation &&/return generation != 0 \&\&/
