# validity.c (b): a session ends five seconds after it was opened
s/created_at > now - absolute/created_at > now - Min(absolute, 5 * USECS_PER_SEC)/
