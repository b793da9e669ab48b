-- A connection asks for room among those of its user and among those of its tenant.
-- KEYS: those of the user, those of the tenant: sorted sets of connections by when they expire, in Unix milliseconds
-- ARGV: connection, ttl in milliseconds, most of the user, most of the tenant (0: no limit, and nothing is kept)
-- {0, 0} when it has room, else {which key is full, how many are there}; nothing is kept then
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 1, 2 do
  local most = tonumber(ARGV[at + 2])
  if most > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[at], '-inf', now)
    if not redis.call('ZSCORE', KEYS[at], ARGV[1]) then
      local there = redis.call('ZCARD', KEYS[at])
      if there >= most then
        return {at, there}
      end
    end
  end
end
for at = 1, 2 do
  if tonumber(ARGV[at + 2]) > 0 then
    redis.call('ZADD', KEYS[at], now + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', KEYS[at], ARGV[2])
  end
end
return {0, 0}
