"""The same application with session_admin: what there is to add."""

from settings import *

MIDDLEWARE += ["session_admin.SessionAdminMiddleware"]
DATABASES["default"]["OPTIONS"] = {"options": "-c session_admin.application=django"}
