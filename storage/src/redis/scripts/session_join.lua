-- A node has a user or a channel, for so long.
-- KEYS: the set of nodes; of a user, also the set of all users
-- ARGV: ttl in seconds, node, what the keys of nodes begin with ('' if nobody is to be looked for), user
redis.call('SADD', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then
  -- A node that died has left itself in the set, and whoever refreshes the set would keep it there.
  for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if node ~= ARGV[2] and redis.call('EXISTS', ARGV[3] .. node) == 0 then
      redis.call('SREM', KEYS[1], node)
    end
  end
end
if KEYS[2] then
  redis.call('SADD', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], 2 * ARGV[1])
end
return 1
