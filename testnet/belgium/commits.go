package belgium

import "context"

func (r *run) commits(context.Context) error { return nil }
