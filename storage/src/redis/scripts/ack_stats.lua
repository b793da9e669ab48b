-- The figures of the acknowledgements. Changes nothing.
--
-- KEYS  1 what is pending, by its time (zset)  2 the figures (hash)
-- gives pending, then the figures or nil

local figures = redis.call('HMGET', KEYS[2], 'total_tracked', 'total_acked', 'total_expired', 'total_latency_ms')
return {redis.call('ZCARD', KEYS[1]), unpack(figures)}
