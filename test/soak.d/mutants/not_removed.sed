# live.c (a): what has ended stays in the shared table
s/^\t\tlive_remove(key);//
