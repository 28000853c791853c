"""kvswarm in Locust's web UI: a tab, a page of live plots, the start form, downloads, a login."""
