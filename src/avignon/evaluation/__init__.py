"""What is measured on pictures: style, copies, seed differences; and the report that holds it."""
