"""What the scripts here have in common with those that people run: a file of
settings, a login, a short patience, no retry, and trust in the shape of errors."""

import base64
import json
import sys
import time

import requests

with open(sys.argv[1], encoding="utf-8") as f:
    settings = json.load(f)
API, LOGIN = settings["api"], settings["login"]
PATIENCE = settings["patience"]  # seconds that an answer may take


class ApiError(Exception):
    """An error of the API, which always says what it is in the same way."""


def checked(response):
    """The answer as JSON. Every error is expected to have Microsoft's shape."""
    if response.status_code >= 400:
        error = response.json()["error"]
        raise ApiError(f"{response.status_code} {error['code']}: {error['message']}")
    return response.json()


def credentials(**more):
    return {
        "grant_type": "client_credentials",
        "client_id": settings["client_id"],
        "client_secret": settings["client_secret"],
        "resource": "https://api.securitycenter.microsoft.com",
        **more,
    }


def token_url(version=""):
    return f"{LOGIN}/{settings['tenant']}/oauth2/{version}token"


def by_form():
    return requests.post(token_url(), data=credentials(), timeout=PATIENCE)


def by_json():
    return requests.post(token_url(), json=credentials(), timeout=PATIENCE)


def by_query():
    """One tool asks with GET, and with its secret in the query."""
    return requests.get(token_url(), params=credentials(), timeout=PATIENCE)


def by_v2():
    scope = "https://api.securitycenter.microsoft.com/.default"
    return requests.post(token_url("v2.0/"), data=credentials(scope=scope), timeout=PATIENCE)


def expiry(token):
    """The time at which a token ends, read from the token itself."""
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]


def log_in(ask=by_form):
    """A session that sends the token with every request."""
    token = checked(ask())["access_token"]
    if expiry(token) < time.time() + 600:
        raise SystemExit("the token ends within ten minutes")
    session = requests.Session()
    session.headers.update({"Authorization": f"Bearer {token}", "Accept": "application/json"})
    return session


def done(**result):
    print(json.dumps(result))
