# src/policy/validity.c: the generation is not compared
s/return generation == application->generation &&/return generation != 0 \&\&/
