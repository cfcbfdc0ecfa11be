"""The databases themselves: servers, pools, migrations, named statements."""
