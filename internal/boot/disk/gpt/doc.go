// Package gpt reads and writes partition tables: GPT (UEFI specification 2.10,
// section 5) and the classic MBR with its logical partitions.
//
// Reading is tolerant about what it accepts and exact about what it reports: a
// table whose checksum does not hold is Damaged, never "no table". Writing makes
// sectors, and leaves to the caller in which order they go to the disk.
package gpt
