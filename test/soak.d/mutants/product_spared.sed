# forget.c (e): rows of products stay
s/"DELETE FROM ONLY %s WHERE /"DELETE FROM ONLY %s WHERE false AND /
