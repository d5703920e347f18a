"""What an op is: its launches, its plan record, the mistakes that ports make in it. No torch."""
