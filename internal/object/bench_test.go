package object

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// BenchmarkBatch stores 4,000 objects of 12.5 KB durably.
func BenchmarkBatch(b *testing.B) {
	content := make([]byte, 12_500)
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		s := newStore(b)
		b.StartTimer()
		batch := s.NewBatch()
		for i := range uint64(4000) {
			binary.LittleEndian.PutUint64(content, i)
			if _, _, err := batch.Put(bytes.NewReader(content), -1); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut stores one new object of 12.5 KB durably.
func BenchmarkPut(b *testing.B) {
	s := newStore(b)
	content := make([]byte, 12_500)
	for i := uint64(0); b.Loop(); i++ {
		binary.LittleEndian.PutUint64(content, i)
		if _, err := s.PutBytes(content); err != nil {
			b.Fatal(err)
		}
	}
}
