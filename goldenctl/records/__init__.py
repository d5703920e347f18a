"""What is computed and stored, as data: reports, findings, checks, policies, trials."""
