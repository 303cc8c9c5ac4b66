// Package ova reads appliances in one file: a tar archive of a description in
// OVF, a manifest of digests and the disks.
//
// It says what the appliance is and copies its disks out, each verified against
// the manifest if there is one. It does not make machines, does not verify the
// signature of a .cert, and reads nothing of the description but the disks, the
// memory and the processors.
//
// The archive is foreign: its names never become paths, entries that are no plain
// files are refused, and everything that is kept in memory is bounded.
//
// Specification: DMTF DSP0243 (OVF) 1.1 and 2.1.
package ova
