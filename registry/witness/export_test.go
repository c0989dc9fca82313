package witness

import "context"

func (w *Witness) CompareNote(ctx context.Context, raw []byte) error { return w.compareNote(ctx, raw) }
