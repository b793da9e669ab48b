-- The figures of all mailboxes. Changes nothing.
--
-- KEYS  1 mailboxes by what is due (zset)  2 the figures (hash)
-- gives mailboxes, then the figures or nil

local figures = redis.call('HMGET', KEYS[2], 'depth', 'enqueued', 'dropped', 'expired', 'delivered', 'undecodable')
return {redis.call('ZCARD', KEYS[1]), unpack(figures)}
