// Package tier decides which tests run where, so that no test is skipped for a
// private reason. Tests only; the tiers are described in docs/testing.md.
//
// MICA_TEST lists the tiers that are on besides the short and the full one
// ("root,vm"). MICA_TEST_REQUIRE lists what must be there: a tool or a data set
// named in it turns the skip into a failure.
package tier

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Full skips the test under -short.
func Full(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("full tier: runs without -short")
	}
}

// Root skips the test unless the root tier is on and the process is root.
func Root(t testing.TB) {
	t.Helper()
	on(t, "root")
	if os.Geteuid() != 0 {
		t.Fatal("MICA_TEST has root, but this is not root")
	}
}

// VM skips the test unless the vm tier, which boots machines, is on.
func VM(t testing.TB) {
	t.Helper()
	on(t, "vm")
}

// Tool returns the path of a program, or skips the test where it is not
// installed.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name, "not installed")
	}
	return path
}

// Files is about what belongs to a tool and comes in packages of its own: the test
// is skipped for want of it as it is for want of the tool.
func Files(t testing.TB, tool string, err error) {
	t.Helper()
	missing(t, tool, err.Error())
}

// PeerData returns the folder of that name in MICA_PEER_DATA: files made by
// other systems that are not part of this project.
func PeerData(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(os.Getenv("MICA_PEER_DATA"), name)
	if os.Getenv("MICA_PEER_DATA") == "" {
		missing(t, "peer-data", "MICA_PEER_DATA is not set")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("peer data %q: %v", name, err)
	}
	return dir
}

// Rounds is how often a test repeats what it does at random: normal times, or
// MICA_TEST_ROUNDS times that.
func Rounds(t testing.TB, normal int) int {
	t.Helper()
	text := os.Getenv("MICA_TEST_ROUNDS")
	if text == "" {
		return normal
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MICA_TEST_ROUNDS: %q is no number of rounds", text)
	}
	return n * normal
}

// Seed is what a test takes its random choices from, a new one each time unless
// MICA_TEST_SEED repeats one. It is in the test's output.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // a test's choices
	if text := os.Getenv("MICA_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("MICA_TEST_SEED: %v", err)
		}
	}
	t.Logf("MICA_TEST_SEED=%d", seed)
	return seed
}

func on(t testing.TB, tier string) {
	t.Helper()
	if !listed("MICA_TEST", tier) {
		t.Skipf("%s tier: runs with MICA_TEST=%s", tier, tier)
	}
}

func missing(t testing.TB, what, why string) {
	t.Helper()
	if listed("MICA_TEST_REQUIRE", what) {
		t.Fatalf("%s is required by MICA_TEST_REQUIRE, but %s", what, why)
	}
	t.Skipf("%s: %s", what, why)
}

func listed(variable, word string) bool {
	return slices.Contains(strings.Split(os.Getenv(variable), ","), word)
}
