package tlog

import "testing"

// TestEpochLine: a later epoch stands in the text as one line in one form; the first has
// none.
func TestEpochLine(t *testing.T) {
	c := Checkpoint{Origin: "demo.example/journal/pcsa-ghent/n1", Size: 7}
	plain := c.Text()
	c.Epoch = 1
	if c.Text() != plain {
		t.Errorf("the first epoch reads %q", c.Text())
	}
	c.Epoch = 12
	got, err := ParseCheckpoint(c.Text())
	if err != nil || got.Epoch != 12 || got.Size != 7 || got.Text() != plain+"epoch 12\n" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, line := range []string{"epoch 1\n", "epoch 0\n", "epoch 02\n", "epoch -2\n", "epoch +2\n", "epoch  2\n", "2\n", "epoch 2", "epoch 2\nepoch 3\n", "epoch 99999999999999999999\n", "\n"} {
		if got, err := ParseCheckpoint(plain + line); err == nil {
			t.Errorf("%q is taken for epoch %d", line, got.Epoch)
		}
	}
}
