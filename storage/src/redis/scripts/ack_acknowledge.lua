-- A recipient acknowledges a notification.
--
-- KEYS  1 the notification (hash)  2 what is pending, by its time (zset)  3 the figures (hash)
-- ARGV  1 notification id  2 scoped user  3 now, ms  4 '1' if one that is late counts, too
-- gives 0 if it is not pending, 1 and the latency in ms, or 2 if it was late

local data, sent, member = 'data:' .. ARGV[2], 'sent:' .. ARGV[2], ARGV[1] .. ':' .. ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'user', 'data', 'sent', data, sent)
local is_first = found[1] == ARGV[2]
local kept, sent_ms = found[4], found[5]
if is_first then
    kept, sent_ms, member = found[2], found[3], ARGV[1]
end
local expires = redis.call('ZSCORE', KEYS[2], member)
redis.call('HLEN', KEYS[3])
if not kept then
    return {0}
end

if is_first then
    redis.call('HDEL', KEYS[1], 'data', 'sent', 'user')
else
    redis.call('HDEL', KEYS[1], data, sent)
end
redis.call('ZREM', KEYS[2], member)
local now = tonumber(ARGV[3])
if ARGV[4] ~= '1' and expires and tonumber(expires) * 1000 <= now then
    redis.call('HINCRBY', KEYS[3], 'total_expired', 1)
    return {2}
end
local latency = math.max(now - (tonumber(sent_ms or now) or now), 0)
redis.call('HINCRBY', KEYS[3], 'total_acked', 1)
redis.call('HINCRBY', KEYS[3], 'total_latency_ms', string.format('%.0f', latency))
return {1, latency}
