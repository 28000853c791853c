"""One Locust user class per profile; thin."""
