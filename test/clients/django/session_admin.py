"""Django's sessions in session_admin: opened at login, asked for at each request.

There is no cache here, and so nothing to follow: touch_session is no write, and
where session_admin is preloaded it is answered from shared memory.

What Django itself does to auth_user, like changepassword or is_active, ends the
sessions because of attach_application('django').
"""

from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import connection
from django.dispatch import receiver

# open_session tells of a login with address and browser; Django's own word of it,
# auth_user.last_login, would count it twice.
user_logged_in.disconnect(dispatch_uid="update_last_login")


def call(function, **arguments):
    named = ", ".join(f"{name} => %({name})s" for name in arguments)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT session_admin.{function}({named})", arguments)
        return cursor.fetchone()[0]


def client(request):
    return {
        "client_address": request.META["REMOTE_ADDR"],
        "forwarded_for": request.headers.get("X-Forwarded-For"),
        "user_agent": request.headers.get("User-Agent"),
    }


@receiver(user_logged_in)
def opened(request, user, **kwargs):
    if request.session.session_key is None:
        request.session.save()
    call("open_session", session_id=request.session.session_key,
         user_name=user.get_username(), **client(request))


@receiver(user_logged_out)
def closed(request, **kwargs):
    if request.session.session_key is not None:
        call("close_session", session_id=request.session.session_key)


@receiver(user_login_failed)
def failed(credentials, request=None, **kwargs):
    call("login_failed", user_name=credentials["username"], **(client(request) if request else {}))


class SessionAdminMiddleware:
    """After AuthenticationMiddleware: who has been logged out in the database is here too."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.user.is_authenticated and not call(
            "touch_session", session_id=request.session.session_key
        ):
            logout(request)
        return self.get_response(request)
