"A finished run opened, evaluated, asked about a video, and exported"
