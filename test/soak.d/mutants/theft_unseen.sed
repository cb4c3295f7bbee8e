# series.c (d): an older token is taken for a guess
s/? SHOWN_ANCESTOR : SHOWN_STRANGER/? SHOWN_STRANGER : SHOWN_STRANGER/
