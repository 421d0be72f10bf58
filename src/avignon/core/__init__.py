"""What every package stands on: errors, records, events, names, files and folders, pictures. No torch at import."""
