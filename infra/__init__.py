"""The project's AWS side: the Pulumi program (here), the operator's commands (ops) and the machine's programs (box)."""
