"""What ties the streams to Locust: events, quotas over workers, recorder, live figures."""
