package node

import "context"

func (n *Node) openGossip() error { return nil }

func (n *Node) runGossip(ctx context.Context) error { return nil }
