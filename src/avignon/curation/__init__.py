"""Which works to train on: the gates of rights and measures, a curator's decisions, the ledger, the contact sheet."""
