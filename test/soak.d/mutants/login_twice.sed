# account.c (e): a login counts twice
s/login_count = a\.login_count + 1/login_count = a.login_count + 2/
