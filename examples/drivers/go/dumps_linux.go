package main

import "syscall"

const prSetDumpable = 4

// forbidDumps keeps keys out of core dumps and away from other processes of the user (SPEC.md 11-2).
func forbidDumps() {
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
}
