//go:build !linux

package main

import "syscall"

// forbidDumps keeps keys out of core dumps (SPEC.md 11-2).
func forbidDumps() {
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
