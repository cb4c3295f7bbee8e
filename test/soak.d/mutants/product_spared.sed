# product_table.c (e): rows of products stay
s/"%s WHERE ctid OPERATOR(pg_catalog\.=) ANY (\$1)"/"%s WHERE false AND ctid OPERATOR(pg_catalog.=) ANY ($1)"/
