"""The installation: built from the settings and key files, which no other room reads, and passed down in parts."""

from jiebang.app.checkup import Checkup, ServerNeed, check_up, settings_without_secrets
from jiebang.app.installation import App
from jiebang.app.opening import POLICY, is_installed, load_settings, migrate, open_app, rotate_seal_key
from jiebang.app.rotation import rotate_wrapping_key

__all__ = [
    "POLICY",
    "App",
    "Checkup",
    "ServerNeed",
    "check_up",
    "is_installed",
    "load_settings",
    "migrate",
    "open_app",
    "rotate_seal_key",
    "rotate_wrapping_key",
    "settings_without_secrets",
]
