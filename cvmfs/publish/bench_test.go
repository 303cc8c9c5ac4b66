package publish_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkIncremental publishes 1500 files of which 100 have changed.
func BenchmarkIncremental(b *testing.B) {
	w := newWorld(b)
	file := func(i int) string {
		return filepath.Join(w.source, fmt.Sprintf("d%02d", i/50), fmt.Sprintf("f%04d", i))
	}
	write := func(i, round int) { must(b, os.WriteFile(file(i), fmt.Appendf(nil, "file %d, %d", i, round), 0o644)) }
	for i := range 1500 {
		must(b, os.MkdirAll(filepath.Dir(file(i)), 0o755))
		write(i, 0)
	}
	w.publish(b, nil)
	b.ResetTimer()
	for round := range b.N {
		b.StopTimer()
		for i := range 100 {
			write(i*15, round+1)
		}
		b.StartTimer()
		w.publish(b, nil)
	}
}
