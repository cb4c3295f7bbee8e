from django.contrib.auth import authenticate, login, logout
from django.http import HttpResponse, JsonResponse
from django.urls import path


def home(request):
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"user": request.user.get_username()})


def log_in(request):
    user = authenticate(
        request, username=request.POST["user"], password=request.POST["password"]
    )
    if user is None:
        return HttpResponse(status=401)
    login(request, user)
    return HttpResponse(status=204)


def log_out(request):
    logout(request)
    return HttpResponse(status=204)


urlpatterns = [path("", home), path("login", log_in), path("logout", log_out)]
