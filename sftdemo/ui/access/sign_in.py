"""The routes by which the owner signs in with a password, or is sent to sign in with an account; and signs out."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sftdemo.errors import UserError
from sftdemo.ui.access import cookies, hosts, rights
from sftdemo.ui.texts import language, say
from sftdemo.ui.texts.faults import in_words

MOST_BYTES = 4096  # of a form with a password
WRONG = UserError("That isn't the password.")
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:22rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}"
    "input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.3rem 0}"
)


def page(request: Request, fault: str = "", status: int = 200) -> Response:
    """The form, and the way to sign in with an account; addresses are relative, so that it works below a sub-path."""
    lang = language(request)
    parts = [f"<h1>{say(lang, 'sign_in_title')}</h1>"]
    if fault:
        parts.append(f'<p role="alert">{escape(fault)}</p>')
    if rights.policy().config.password:
        parts.append(
            f'<form method="post" action="login"><label>{say(lang, "sign_in_password")}'
            '<input type="password" name="password" autocomplete="current-password" autofocus required></label>'
            f"<button>{say(lang, 'sign_in')}</button></form>"
        )
    if rights.can_sign_in():
        parts.append(f'<p><a href="login/huggingface">{say(lang, "sign_in_account")}</a></p>')
    if len(parts) == 1:
        parts.append(f"<p>{say(lang, 'sign_in_none')}</p>")
    return document(lang, say(lang, "sign_in"), parts, status)


def document(lang: str, title: str, parts: list[str], status: int = 200) -> Response:
    back = f'<p><a href="./">{say(lang, "sign_in_back")}</a></p>'
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    head += f"<title>sftdemo · {title}</title>"
    body = "".join((*parts, back))
    return HTMLResponse(f'<!doctype html><html lang="{lang}"><head>{head}</head><body>{body}', status)


async def sign_in(request: Request) -> Response:
    """Show the form, or take the password: a browser is led back to the app, a client is told in JSON."""
    if request.method != "POST":
        return page(request)
    try:
        if not rights.is_password(await password_of(request), rights.visitor(request).address):
            return refusal(request, WRONG, 401)
    except UserError as error:
        return refusal(request, error, 429)
    response = RedirectResponse("./", 303) if by_browser(request) else JSONResponse({"success": True})
    response.raw_headers.append(cookies.set_cookie(cookies.OWNER, cookies.signed(cookies.OWNER), request.scope))
    return response


def refusal(request: Request, error: UserError, status: int) -> Response:
    text = in_words(error, language(request))
    return page(request, text, status) if by_browser(request) else JSONResponse({"detail": text}, status)


def by_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


async def password_of(request: Request) -> str:
    """The password in the form that was sent."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise UserError("The form is longer than {most} bytes.", most=MOST_BYTES)
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).get("password", [""])[0]


async def sign_out(request: Request) -> Response:
    """Forget the sign-in, by password and by account; a link that isn't the app's own leads to a button for it."""
    if request.method != "POST" and not hosts.is_own_click(request.scope):
        lang = language(request)
        text = say(lang, "sign_out")
        return document(lang, text, [f'<form method="post" action="logout"><button>{text}</button></form>'])
    cookies.end(cookies.OWNER, request.scope)
    request.scope.get("session", {}).pop("oauth_info", None)
    response = RedirectResponse("./", 303)
    response.raw_headers.append(cookies.set_cookie(cookies.OWNER, "", request.scope))
    return response


ROUTES = [Route("/login", sign_in, methods=["GET", "POST"]), Route("/logout", sign_out, methods=["GET", "POST"])]
