"""What we do to the stack: one file per Make verb, over one door to AWS. Neither pulumi nor torch is imported here."""
