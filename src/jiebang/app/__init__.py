"""The installation: built from the settings and key files, which no other room reads, and passed down in parts."""

from jiebang.app.installation import App
from jiebang.app.opening import POLICY, is_installed, load_settings, migrate, open_app

__all__ = ["POLICY", "App", "is_installed", "load_settings", "migrate", "open_app"]
