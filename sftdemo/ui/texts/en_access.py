"""What the page says of who may do what, in English."""

ACCESS = {
    "no_cookie": "This browser keeps no cookies here, so you won't see this run any more after you reload the page.",
    "work_others": "another run",
    "lost_at_restart": "Runs and votes are lost when this Space restarts or sleeps: give it a volume, or set SFTDEMO_BACKUP_REPO.",
    "sign_in": "Sign in",
    "sign_out": "Sign out",
    "sign_in_title": "Sign in as the owner",
    "sign_in_password": "Password",
    "sign_in_account": "Sign in with your Hub account",
    "sign_in_none": "This app has neither a password nor accounts to sign in with.",
    "sign_in_back": "Back to the app",
}
