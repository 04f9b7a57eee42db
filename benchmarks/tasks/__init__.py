"""What runs in a child process: each file measures one thing once and prints `RESULT` and JSON. Peers' files import no sftdemo."""
