"""The machine: memory, compute, the allocator, several processes."""
