package catalog

import "testing"

// The halves are little-endian and signed, the root is the empty path.
func TestHashPath(t *testing.T) {
	if got, want := hashPath(""), (pathHash{338333539836370388, 9098107892288553193}); got != want {
		t.Errorf("hashPath(\"\") = %v, want %v", got, want)
	}
	if hashPath("/") == hashPath("") {
		t.Error("the root is not \"/\"")
	}
}
